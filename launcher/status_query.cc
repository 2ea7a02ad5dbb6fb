#include "launcher/status_query.h"

#include <utility>
#include <variant>

#include "comm/client/limits.h"
#include "comm/codec/json_codec.h"

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kOneReceive{200};

}  // namespace

Result<StatusAnswer> ask_status(comm::ServerClient& client, std::chrono::seconds patience) {
  const Clock::time_point begin = Clock::now();
  if (auto sent = client.send(comm::StatusRequest{"status"}); !sent) return tl::unexpected(sent.error());
  while (Clock::now() - begin < patience) {
    auto message = client.receive(kOneReceive);
    if (!message) continue;
    if (auto* reply = std::get_if<comm::StatusReply>(&*message)) {
      return StatusAnswer{std::move(reply->json), std::chrono::duration<double>(Clock::now() - begin).count()};
    }
    if (const auto* failure = std::get_if<comm::Failure>(&*message)) return fail("{}", failure->message);
  }
  return fail("the server gives no status within {} s", patience.count());
}

Result<actors::ServerStatus> read_status(std::string_view json) {
  auto status = comm::from_json<actors::ServerStatus>(json, comm::kStatusLimits, comm::JsonKeys::any);
  if (!status) return fail("the server's status: {}", status.error().message);
  return status;
}

}  // namespace lorikeet::launcher
