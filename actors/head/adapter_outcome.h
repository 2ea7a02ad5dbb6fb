// How a request that claimed an adapter's content has ended, as far as that says something about the content.
#pragma once

#include <cstdint>

namespace lorikeet::actors {

enum class AdapterOutcome : uint8_t {
  none,      // nothing: it was cancelled, or failed for a reason that has nothing to do with the adapter
  success,   // it got all its tokens
  no_token,  // a row under this adapter gave no token, since its logits are not finite
};

}  // namespace lorikeet::actors
