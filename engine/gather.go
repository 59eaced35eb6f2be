package engine

import "runtime"

// gatherMost is how often others go first, where each time some of them have brought something.
const gatherMost = 4

// Gather lets the goroutines that are ready to run go first, as long as more is waiting by that: those who
// bring something at about the same time then share what is done for it. Waiting tells how much there is;
// where it is nothing Gather returns at once. Nobody sleeps.
func Gather(waiting func() int) {
	known := 0
	for range gatherMost {
		n := waiting()
		if n == known {
			return
		}
		known = n
		runtime.Gosched()
	}
}
