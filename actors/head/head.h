// The life of the head's process: gateway, scheduler, adapter cache and the clients' socket.
#pragma once

namespace lorikeet::actors {

// What the supervisor starts as `lorikeet head`; its first message on the control channel says what the process is to
// be (ChildStart). Returns the exit status where no supervisor is there; else the process ends inside.
int run_head();

}  // namespace lorikeet::actors
