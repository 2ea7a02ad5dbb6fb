// The first three descriptors of a process.
#pragma once

namespace lorikeet::launcher {

// Opens /dev/null for each of standard input, output and error that is closed. Before anything else is opened: it would
// get their numbers, and what is said would be written into it.
void open_closed_streams();

}  // namespace lorikeet::launcher
