#include "launcher/batch_runner.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <optional>
#include <utility>

#include "comm/client/request_json.h"

namespace lorikeet::launcher {
namespace {

// What a request was sent under: "LINE", or "LINE/CHOICE/ATTEMPT" where the line has several, of which those of an
// earlier attempt may still be answered.
struct SentAs {
  int64_t line = 0;
  size_t choice = 0;
  int attempt = 0;  // 0: not said
};

// nullopt for what no request of ours is called.
std::optional<SentAs> sent_as(const std::string& id) {
  SentAs sent;
  const char* at = id.data();
  const char* const end = at + id.size();
  const auto number = [&at, end](auto& value) {
    const auto parsed = std::from_chars(at, end, value);
    at = parsed.ptr;
    return parsed.ec == std::errc();
  };
  const auto slash = [&at, end] { return at != end && *at++ == '/'; };
  if (!number(sent.line)) return std::nullopt;
  if (at == end) return sent;
  const bool whole = slash() && number(sent.choice) && slash() && number(sent.attempt) && at == end;
  return whole ? std::optional<SentAs>(sent) : std::nullopt;
}

}  // namespace

BatchRunner::BatchRunner(comm::ZmqClient& client, LineReader& reader, LineFileWriter& writer, size_t window,
                         AnsweredLines answered, BatchModel model)
    : client_(client),
      reader_(reader),
      writer_(writer),
      window_(window),
      answered_(std::move(answered)),
      model_(std::move(model)) {}

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
    while (more && with_server_ < window_ && finished_.size() < 16 * window_ && alone_.empty()) {
      const auto line = reader_.next();
      more = line.has_value();
      if (!line) break;
      if (auto ok = take_line(*line); !ok) return ok;
    }
    if (running_.empty() && !alone_.empty()) {
      auto next = running_.insert(alone_.extract(alone_.begin()));
      with_server_ += next.position->second.requests.size();
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

Result<void> BatchRunner::take_line(const std::string& text) {
  auto line = BatchLine::parse(text, next_line_, model_);
  if (answered_.take(line, reader_.line_number())) return {};
  const int64_t number = next_line_++;
  if (!line) {
    const auto file_line = static_cast<size_t>(reader_.line_number());
    return finish(number, comm::unreadable_line(file_line, text, line.error().message), true);
  }
  if (auto refusal = (*line)->refusal()) return finish(number, *std::move(refusal), true);
  std::vector<comm::GenerateRequest> requests = (*line)->requests();
  with_server_ += requests.size();
  return send(running_.emplace(number, Running{number, std::move(requests), *std::move(line)}).first->second);
}

Result<void> BatchRunner::send(Running& running) {
  ++running.attempts;
  const bool single = running.requests.size() == 1;
  for (size_t i = 0; i < running.requests.size(); ++i) {
    comm::GenerateRequest& request = running.requests[i];
    request.id = single ? std::to_string(running.number) : fmt::format("{}/{}/{}", running.number, i, running.attempts);
    if (auto ok = client_.send(request); !ok) return ok;
  }
  return {};
}

BatchRunner::Running BatchRunner::take(std::map<int64_t, Running>::iterator running) {
  with_server_ -= running->second.requests.size();
  return std::move(running_.extract(running).mapped());
}

std::map<int64_t, BatchRunner::Running>::iterator BatchRunner::find(const std::string& id) {
  const auto sent = sent_as(id);
  const auto found = sent ? running_.find(sent->line) : running_.end();
  if (found == running_.end()) return found;
  const Running& running = found->second;
  const bool of_this_attempt = running.requests.size() == 1 || sent->attempt == running.attempts;
  return of_this_attempt && sent->choice < running.requests.size() ? found : running_.end();
}

Result<void> BatchRunner::handle(const comm::ServerMessage& message) {
  if (const auto* delta = std::get_if<comm::Delta>(&message)) {
    if (const auto it = find(delta->id); it != running_.end()) {
      it->second.line->add(sent_as(delta->id)->choice, *delta);
      summary_.streamed_tokens += static_cast<int64_t>(delta->token_ids.size());
    }
  } else if (const auto* done = std::get_if<comm::Done>(&message)) {
    const auto it = find(done->id);
    if (it == running_.end()) return {};
    summary_.prompt_tokens += done->usage.prompt_tokens;
    summary_.completion_tokens += done->usage.completion_tokens;
    auto result = it->second.line->finish(sent_as(done->id)->choice, *done);
    if (!result) return {};
    const int64_t line = it->first;
    take(it);
    return finish(line, *std::move(result), false);
  } else if (const auto* failure = std::get_if<comm::Failure>(&message)) {
    return fail_request(*failure);
  }
  return {};
}

Result<void> BatchRunner::fail_request(const comm::Failure& failure) {
  if (failure.id.empty()) return failure.code == "server_lost" ? resend_all() : fail("{}", failure.message);
  const auto it = find(failure.id);
  if (it == running_.end()) return {};
  if (failure.code == "shutting_down") {
    return fail("the server went away with {} requests unanswered", running_.size() + alone_.size());
  }
  cancel_others(it->second, failure.id);
  if (failure.code == "rank_lost") return lose(it, failure);
  const int64_t line = it->first;
  return finish(line, take(it).line->finish(failure), true);
}

// One choice that fails takes the others with it.
void BatchRunner::cancel_others(const Running& running, const std::string& failed) {
  for (const comm::GenerateRequest& request : running.requests) {
    if (request.id != failed) client_.send(comm::Cancel{request.id});  // an error is one of the next request, too
  }
}

Result<void> BatchRunner::lose(std::map<int64_t, Running>::iterator lost, const comm::Failure& failure) {
  const int64_t line = lost->first;
  if (lost->second.attempts >= kMaxAttempts) return finish(line, take(lost).line->finish(failure), true);
  lost->second.line->restart();
  if (lost->second.attempts + 1 < kMaxAttempts) return send(lost->second);
  alone_.emplace(line, take(lost));
  return {};
}

Result<void> BatchRunner::resend_all() {
  const comm::Failure lost{"", "server_lost", "the server was lost while it worked on the request"};
  for (auto it = running_.begin(); it != running_.end();) {
    const auto current = it++;
    if (current->second.attempts >= kMaxAttempts) current->second.line->restart();
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
