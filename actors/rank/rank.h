// The life of a rank's process.
#pragma once

namespace lorikeet::actors {

// What the supervisor starts as `lorikeet rank N`; its first message on the control channel says what the process is to
// be (ChildStart). Returns the exit status where no supervisor is there; else the process ends inside.
int run_rank();

}  // namespace lorikeet::actors
