#include "launcher/batch_runner.h"

#include <charconv>
#include <chrono>
#include <optional>
#include <utility>

namespace lorikeet::launcher {
namespace {

// The line number that a request was sent under; nullopt for what no request of ours is called.
std::optional<int64_t> line_of(const std::string& id) {
  int64_t line = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), line);
  if (error != std::errc() || end != id.data() + id.size()) return std::nullopt;
  return line;
}

}  // namespace

BatchRunner::BatchRunner(comm::ZmqClient& client, LineReader& reader, LineWriter& writer, size_t window,
                         AnsweredLines answered)
    : client_(client), reader_(reader), writer_(writer), window_(window), answered_(std::move(answered)) {}

Result<BatchRunner::Summary> BatchRunner::run(const std::function<bool()>& give_up,
                                              const std::function<void(const Summary&)>& on_progress) {
  if (auto ok = work(give_up, on_progress); !ok) {
    for (const auto& [line, result] : std::exchange(finished_, {})) {
      if (!writer_.write(result)) break;
    }
    return tl::unexpected(ok.error());
  }
  return summary_;
}

Result<void> BatchRunner::work(const std::function<bool()>& give_up,
                               const std::function<void(const Summary&)>& on_progress) {
  bool more = true;
  while (more || !running_.empty() || !alone_.empty()) {
    // A slow first request must not make the results behind it pile up without limit.
    while (more && running_.size() < window_ && finished_.size() < 16 * window_ && alone_.empty()) {
      const auto line = reader_.next();
      more = line.has_value();
      if (!line) break;
      if (auto ok = take_line(*line); !ok) return ok;
    }
    if (running_.empty() && !alone_.empty()) {
      auto next = running_.insert(alone_.extract(alone_.begin()));
      if (auto ok = send(next.position->second); !ok) return ok;
    }
    if (running_.empty()) continue;
    if (auto message = client_.receive(std::chrono::milliseconds(200))) {
      if (auto ok = handle(*message); !ok) return ok;
      if (on_progress) on_progress(summary_);
    } else if (give_up()) {
      return fail("the server has stopped with {} requests unanswered", running_.size() + alone_.size());
    }
  }
  if (reader_.failed()) return fail("the input could not be read to its end");
  return {};
}

Result<void> BatchRunner::take_line(const std::string& line) {
  auto parsed = comm::parse_request(line);
  if (answered_.take(parsed, reader_.line_number())) return {};
  const int64_t number = next_line_++;
  if (!parsed) {
    const auto file_line = static_cast<size_t>(reader_.line_number());
    return finish(number, comm::unreadable_line(file_line, line, parsed.error().message), true);
  }
  const comm::ResultLine result(*parsed);
  parsed->request.id = std::to_string(number);
  return send(running_.emplace(number, Running{std::move(parsed->request), result}).first->second);
}

Result<void> BatchRunner::send(Running& running) {
  ++running.attempts;
  return client_.send(running.request);
}

Result<void> BatchRunner::handle(const comm::ServerMessage& message) {
  const auto find = [&](const std::string& id) {
    const auto line = line_of(id);
    return line ? running_.find(*line) : running_.end();
  };
  if (const auto* delta = std::get_if<comm::Delta>(&message)) {
    if (const auto it = find(delta->id); it != running_.end()) {
      it->second.result.add(*delta);
      summary_.streamed_tokens += static_cast<int64_t>(delta->token_ids.size());
    }
  } else if (const auto* done = std::get_if<comm::Done>(&message)) {
    const auto it = find(done->id);
    if (it == running_.end()) return {};
    summary_.prompt_tokens += done->usage.prompt_tokens;
    summary_.completion_tokens += done->usage.completion_tokens;
    const auto ended = running_.extract(it);
    return finish(ended.key(), ended.mapped().result.finish(*done), false);
  } else if (const auto* failure = std::get_if<comm::Failure>(&message)) {
    return fail_request(*failure);
  }
  return {};
}

Result<void> BatchRunner::fail_request(const comm::Failure& failure) {
  if (failure.id.empty()) return failure.code == "server_lost" ? resend_all() : fail("{}", failure.message);
  const auto line = line_of(failure.id);
  const auto it = line ? running_.find(*line) : running_.end();
  if (it == running_.end()) return {};
  if (failure.code == "shutting_down") {
    return fail("the server went away with {} requests unanswered", running_.size() + alone_.size());
  }
  if (failure.code == "rank_lost") return lose(it, failure);
  const auto ended = running_.extract(it);
  return finish(ended.key(), ended.mapped().result.finish(failure), true);
}

Result<void> BatchRunner::lose(std::map<int64_t, Running>::iterator lost, const comm::Failure& failure) {
  if (lost->second.attempts >= kMaxAttempts) {
    const auto ended = running_.extract(lost);
    return finish(ended.key(), ended.mapped().result.finish(failure), true);
  }
  lost->second.result.restart();
  if (lost->second.attempts + 1 < kMaxAttempts) return send(lost->second);
  alone_.insert(running_.extract(lost));
  return {};
}

Result<void> BatchRunner::resend_all() {
  const comm::Failure lost{"", "server_lost", "the server was lost while it worked on the request"};
  for (auto it = running_.begin(); it != running_.end();) {
    const auto current = it++;
    if (current->second.attempts >= kMaxAttempts) current->second.result.restart();
    if (auto ok = lose(current, lost); !ok) return ok;
  }
  return {};
}

Result<void> BatchRunner::finish(int64_t line, std::string result, bool failed) {
  ++summary_.lines;
  summary_.failed += failed ? 1 : 0;
  finished_.emplace(line, std::move(result));
  while (!finished_.empty() && finished_.begin()->first == next_result_) {
    if (auto ok = writer_.write(finished_.begin()->second); !ok) return ok;
    finished_.erase(finished_.begin());
    ++next_result_;
  }
  return {};
}

}  // namespace lorikeet::launcher
