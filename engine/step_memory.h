// Memory of a step's large arrays (rows, results, events: hundreds of KiB with thousands of sequences).
#pragma once

namespace lorikeet::engine {

// Makes the allocator keep freed arrays for the next step. By default it returns them to the system each time, and getting
// them back is one page fault per 4 KiB, more than half of the cost of a result. A process that runs an engine calls this
// once at its start; each arena of the allocator may then hold up to 16 MiB of unused memory.
void keep_step_memory();

}  // namespace lorikeet::engine
