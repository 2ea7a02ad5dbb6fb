#include "comm/client/adapter_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "comm/client/limits.h"
#include "comm/codec/bounded_json.h"
#include "kernels/base/printable.h"

namespace lorikeet::comm {
namespace {

constexpr std::array<std::string_view, 6> kActions = {"load", "unload", "pin", "unpin", "warm", "list"};

bool has_control_characters(std::string_view text) {
  return std::any_of(text.begin(), text.end(), is_control);
}

}  // namespace

Result<void> check_sizes(const AdapterRequest& request) {
  if (request.id.empty()) return fail("id must not be empty");
  if (request.id.size() > kMaxIdBytes) return fail("id has {} bytes, more than {}", request.id.size(), kMaxIdBytes);
  if (std::find(kActions.begin(), kActions.end(), request.action) == kActions.end()) {
    return fail("action is {}, not one of load, unload, pin, unpin, warm and list", excerpt(request.action));
  }
  const bool load = request.action == "load", list = request.action == "list";
  if (list && request.name) return fail("list takes no name");
  if (!list && !request.name) return fail("{} needs the name of an adapter", request.action);
  if (!list && !is_adapter_name(*request.name)) {
    return fail("name has 1 to {} bytes of UTF-8 and no control characters", kMaxAdapterBytes);
  }
  if (load && *request.name == kBaseModel) return fail("the name - stands for the base model");
  if (load && !request.path) return fail("load needs a path");
  if (!load && request.path) return fail("only load takes a path");
  if (load &&
      (request.path->empty() || request.path->size() > kMaxPathBytes || has_control_characters(*request.path))) {
    return fail("path has 1 to {} bytes and no control characters", kMaxPathBytes);
  }
  if (request.load_inplace && !load) return fail("only load takes load_inplace");
  return {};
}

bool is_adapter_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxAdapterBytes && printable(name, kMaxAdapterBytes) == name;
}

}  // namespace lorikeet::comm
