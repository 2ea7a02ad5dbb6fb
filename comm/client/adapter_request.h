// What an AdapterRequest must look like, over HTTP and ZeroMQ alike.
#pragma once

#include <string_view>

#include "comm/client/client_messages.h"
#include "kernels/base/error.h"

namespace lorikeet::comm {

// Means the base model where a name of an adapter is asked for. So no adapter may have this name.
inline constexpr const char* kBaseModel = "-";

// Whether the action exists, has what it needs and nothing else, and its texts are not too long.
Result<void> check_sizes(const AdapterRequest& request);

// A name that an adapter may be loaded under: 1 to kMaxAdapterBytes bytes, no control characters, since names stand in
// lines of logs and in labels of metrics.
bool is_adapter_name(std::string_view name);

}  // namespace lorikeet::comm
