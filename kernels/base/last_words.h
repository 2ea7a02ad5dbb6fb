// What a process says at once before it ends.
#pragma once

namespace lorikeet {

// Standard error may be a pipe that a thread of this very process empties (launcher/json_stderr.h), and the thread ends
// with the process. So who ends it without asking anybody waits here until what was said has left the pipe, half a
// second at the most; not at all where the descriptor is no pipe. Async-signal-safe.
void let_last_words_out(int descriptor);

}  // namespace lorikeet
