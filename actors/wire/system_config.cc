#include "actors/wire/system_config.h"

#include <caf/io/all.hpp>
#include <chrono>

#include "actors/wire/messages.h"

namespace lorikeet::actors {
namespace {

constexpr int kConnectionTimeoutBeats = 10;  // a machine under load may be late by a few

}  // namespace

SystemConfig::SystemConfig(const ServerOptions& options, Networking networking, size_t threads) {
  add_message_types<caf::id_block::lorikeet>();
  set("scheduler.policy", caf::atom("sharing"));  // half of the round-trip time of work stealing on few threads
  set("scheduler.max-threads", threads);
  if (networking == Networking::none) return;
  load<caf::io::middleman>();
  const std::chrono::milliseconds beat(options.heartbeat_ms);
  set("middleman.heartbeat-interval", caf::timespan(beat));
  set("middleman.connection-timeout", caf::timespan(beat * kConnectionTimeoutBeats));
}

}  // namespace lorikeet::actors
