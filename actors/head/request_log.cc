#include "actors/head/request_log.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "comm/openai/openai_error.h"
#include "kernels/base/printable.h"

namespace lorikeet::actors {
namespace {

constexpr size_t kMaxQueuedLines = 8192;
constexpr std::chrono::milliseconds kClosePatience{1000};
constexpr size_t kMaxNameBytes = 300;  // of an id or a sentence in a line
constexpr const char* kTextPattern = "%Y-%m-%d %H:%M:%S.%e %l %v";
constexpr const char* kJsonPattern = R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})";

double seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

// A name from outside as part of a line: no control characters, not endless.
std::string shown(std::string_view text) {
  return printable(text, kMaxNameBytes);
}

std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

double rate(uint64_t before, uint64_t after, double time) {
  return after > before && time > 0 ? static_cast<double>(after - before) / time : 0;
}

}  // namespace

void add_failure(const comm::Failure& failure, EndedRequest& ended) {
  ended.error = failure.message;
  ended.status = comm::error_of(failure).status;
}

std::string request_line(const EndedRequest& r, bool as_json) {
  const std::string reason = r.client_gone ? "client_gone" : r.reason;
  if (as_json) {
    // 499: as proxies write of a client that has left.
    return fmt::format(
        R"("event":"request","id":{},"adapter":{},"reason":{},"status":{},"error":{},"prompt_tokens":{},"cached_tokens":{},"tokens":{},"first_token_s":{:.4f},"total_s":{:.4f})",
        json_string(shown(r.id)), json_string(r.adapter), json_string(reason), r.client_gone ? 499 : r.status,
        json_string(shown(r.error)), r.prompt_tokens, r.cached_tokens, r.tokens, seconds(r.to_first_token),
        seconds(r.total));
  }
  std::string line = fmt::format("request {}: {}", shown(r.id), r.client_gone ? "client gone (499)" : reason);
  if (!r.adapter.empty()) line += ", adapter " + shown(r.adapter);
  line += fmt::format(", {} prompt tokens", r.prompt_tokens);
  if (r.cached_tokens > 0) line += fmt::format(" ({} cached)", r.cached_tokens);
  line += fmt::format(", {} generated", r.tokens);
  if (r.tokens > 0) line += fmt::format(", first after {:.3f} s", seconds(r.to_first_token));
  line += fmt::format(", {:.3f} s", seconds(r.total));
  if (!r.error.empty()) line += ": " + shown(r.error);
  return line;
}

std::string adapter_line(const AdapterEvent& e, bool as_json) {
  if (as_json) {
    return fmt::format(
        R"("event":"adapter","action":{},"adapter":{},"path":{},"code":{},"message":{},"total_s":{:.4f})",
        json_string(e.action), json_string(shown(e.name)), json_string(shown(e.path)), json_string(e.code),
        json_string(shown(e.message)), seconds(e.took));
  }
  std::string line = fmt::format("adapter {}: {}", shown(e.name), e.action);
  if (!e.path.empty()) line += " from " + shown(e.path);
  line += fmt::format(", {:.3f} s", seconds(e.took));
  return line + (e.code.empty() ? ", done" : fmt::format(", {}: {}", e.code, shown(e.message)));
}

std::string throughput_line(const ServingStatus& before, const ServingStatus& after, std::chrono::nanoseconds between) {
  const engine::EngineStats &old = before.engine.stats, &now = after.engine.stats;
  const uint64_t waiting = after.queues.held + static_cast<uint64_t>(std::max(now.waiting, 0));
  const bool idle = now.prompt_tokens == old.prompt_tokens && now.generated_tokens == old.generated_tokens;
  if (idle && now.running == 0 && waiting == 0) return "";
  const double time = seconds(between);
  const double used = now.blocks_total > 0 ? 100.0 * (now.blocks_total - now.blocks_free) / now.blocks_total : 0;
  const double hits = now.prompt_tokens > 0
                          ? 100.0 * static_cast<double>(now.prefix_hit_tokens) / static_cast<double>(now.prompt_tokens)
                          : 0;
  return fmt::format(
      "Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, Running: {} reqs, Waiting: "
      "{} "
      "reqs, KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%",
      rate(old.prompt_tokens, now.prompt_tokens, time), rate(old.generated_tokens, now.generated_tokens, time),
      now.running, waiting, used, hits);
}

RequestLog::RequestLog(const LogOptions& options) : options_(options) {
  const auto level = spdlog::level::from_str(options.level);
  if (level == spdlog::level::off) return;
  pool_ = std::make_shared<spdlog::details::thread_pool>(kMaxQueuedLines, 1);
  logger_ = std::make_shared<spdlog::async_logger>("head", std::make_shared<spdlog::sinks::stderr_sink_mt>(), pool_,
                                                   spdlog::async_overflow_policy::overrun_oldest);
  logger_->set_error_handler([](const std::string&) {});  // lines that cannot be written are dropped
  logger_->set_level(level);
  logger_->set_pattern(options.json ? kJsonPattern : kTextPattern);
  logger_->flush_on(spdlog::level::info);
  open_ = true;
}

RequestLog::~RequestLog() {
  close(kClosePatience);
}

void RequestLog::close(std::chrono::milliseconds patience) {
  open_ = false;
  const std::lock_guard lock(mutex_);
  if (!pool_) return;
  // The pool's end waits for its thread, which may wait for a reader for ever.
  auto written = std::make_shared<std::promise<void>>();
  std::thread([pool = std::move(pool_), written]() mutable {
    pool.reset();
    written->set_value();
  }).detach();
  written->get_future().wait_for(patience);
}

void RequestLog::ended(const EndedRequest& request) {
  if (!open_ || !options_.requests) return;
  const auto level = request.reason == "error" ? spdlog::level::warn : spdlog::level::info;
  if (logger_->should_log(level)) logger_->log(level, request_line(request, options_.json));
}

void RequestLog::changed(const AdapterEvent& event) {
  if (!logger_) return;
  const auto level = event.code.empty() ? spdlog::level::info : spdlog::level::warn;
  if (logger_->should_log(level)) logger_->log(level, adapter_line(event, options_.json));
}

void RequestLog::throughput(const std::string& line) {
  if (!open_ || line.empty()) return;
  logger_->log(spdlog::level::info,
               options_.json ? fmt::format(R"("event":"throughput","line":{})", json_string(line)) : line);
}

void RequestLog::passed_over(const std::string& id, const std::vector<std::string>& fields) {
  if (!logger_ || !logger_->should_log(spdlog::level::debug)) return;
  const std::string names = shown(fmt::format("{}", fmt::join(fields, ", ")));
  logger_->log(spdlog::level::debug,
               options_.json ? fmt::format(R"("event":"unknown_fields","id":{},"fields":{})", json_string(shown(id)),
                                           json_string(names))
                             : fmt::format("request {}: there are no such fields, passed over: {}", shown(id), names));
}

}  // namespace lorikeet::actors
