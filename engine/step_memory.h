// Memory of a step's large arrays (rows, results, events: hundreds of KiB with thousands of sequences).
#pragma once

namespace lorikeet::engine {

// Has the allocator keep what they free for the next step. By itself it gives it back to the system each time, and
// taking it again is one page fault per 4 KiB, more than half of what a result then costs. For a process that runs an
// engine, once, at its start; it then holds up to 16 MiB that nobody uses, for each arena of the allocator.
void keep_step_memory();

}  // namespace lorikeet::engine
