/* Two-phase commit as TwoPhase of the TLA+ examples has it (Gray and Lamport 2006, section 3). */
#ifndef N
#define N 8
#endif
#define ALL ((1 << N) - 1)
/* sets of resource managers as bits */
unsigned working : N = ALL;
unsigned prep : N;       /* rmState = prepared */
unsigned committed : N;
unsigned aborted : N;
unsigned tmprepared : N;
unsigned sent : N;       /* [type: Prepared, rm: r] in msgs */
unsigned tm : 2;         /* 0 init, 1 committed (and Commit in msgs), 2 aborted (and Abort in msgs) */

#define BIT(r) (1 << (r))
#define CONSISTENT (committed == 0 || aborted == 0)
#define RM(r) \
  :: d_step { tm == 0 && (sent & BIT(r)) && !(tmprepared & BIT(r)) -> tmprepared = tmprepared | BIT(r) } \
  :: d_step { (working & BIT(r)) -> working = working & ~BIT(r); prep = prep | BIT(r); sent = sent | BIT(r) } \
  :: d_step { (working & BIT(r)) -> working = working & ~BIT(r); aborted = aborted | BIT(r); assert(CONSISTENT) } \
  :: d_step { tm == 1 && !(committed & BIT(r)) -> working = working & ~BIT(r); prep = prep & ~BIT(r); aborted = aborted & ~BIT(r); committed = committed | BIT(r); assert(CONSISTENT) } \
  :: d_step { tm == 2 && !(aborted & BIT(r)) -> working = working & ~BIT(r); prep = prep & ~BIT(r); committed = committed & ~BIT(r); aborted = aborted | BIT(r); assert(CONSISTENT) }

active proctype twophase() {
end: do
  :: d_step { tm == 0 && tmprepared == ALL -> tm = 1 }
  :: d_step { tm == 0 -> tm = 2 }
  RM(0) RM(1) RM(2) RM(3) RM(4) RM(5) RM(6) RM(7)
  od
}
