// A file in memory, without a name in any directory: what memory that outlives a process lies in.
#pragma once

#include <string>

#include "kernels/base/descriptor.h"
#include "kernels/base/error.h"

namespace lorikeet::kernels {

// Empty, and open for seals (fcntl(2) "File Sealing"). Fails where the system has no such files, or limits their size.
Result<Descriptor> make_anonymous_file(const std::string& name);

}  // namespace lorikeet::kernels
