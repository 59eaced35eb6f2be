module assent

go 1.26
