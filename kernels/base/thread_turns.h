// Who goes first where threads want the same core. What these ask for needs no privilege, and where a system does not know
// it, refuses it, or does not say what an operator has chosen, nothing changes.
#pragma once

namespace lorikeet::kernels {

// The calling thread, and those that it will start, wait for others only briefly when they wake: their turns on a core are
// short, and so the turn of whoever has the core ends for them. For threads that do a little, often, while others wait for
// it. Source: sched_setattr(2), sched_runtime of SCHED_OTHER, from Linux 6.12 on.
void take_short_turns();

// What the calling thread, and those that it will start, sleep for ends when it is due, and not up to 50 us later. Source:
// prctl(2), PR_SET_TIMERSLACK.
void sleep_exactly();

// The calling thread, and those that it will start, give way to others of this host, and never take a core from them when
// they wake. Sources: sched(7), SCHED_BATCH and nice values.
void work_in_background();

}  // namespace lorikeet::kernels
