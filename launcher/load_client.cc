#include "launcher/load_client.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <optional>
#include <random>
#include <utility>

#include "launcher/load_plan.h"

namespace lorikeet::launcher {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kLongestReceive{200};

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::optional<size_t> index_of(const std::string& id, size_t size) {
  size_t index = 0;
  const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), index);
  if (error != std::errc() || end != id.data() + id.size() || index >= size) return std::nullopt;
  return index;
}

class LoadRun {
 public:
  LoadRun(comm::ServerClient& client, std::vector<comm::GenerateRequest> requests, const LoadOptions& options)
      : client_(client),
        requests_(std::move(requests)),
        send_times_(options.send_times.size() == requests_.size()
                        ? options.send_times
                        : send_times(requests_.size(), options.request_rate, options.burstiness, options.seed)),
        on_progress_(options.on_progress) {
    window_ = options.max_concurrency == 0 ? requests_.size() : options.max_concurrency;
    load_.requests.resize(requests_.size());
  }

  Result<Load> run(const std::function<bool()>& give_up) {
    while (ended_ < requests_.size()) {
      if (auto ok = send_due(); !ok) return tl::unexpected(ok.error());
      auto message = client_.receive(patience());
      if (!message) {
        if (next_ > ended_ && give_up()) return fail("the server has stopped with {} requests unanswered", running());
        continue;
      }
      if (auto ok = take(*message); !ok) return tl::unexpected(ok.error());
      if (on_progress_) on_progress_(ended_, tokens_);
    }
    load_.seconds = seconds_since(begin_);
    return std::move(load_);
  }

 private:
  size_t running() const { return next_ - ended_; }

  Result<void> send_due() {
    while (next_ < requests_.size() && running() < window_ && send_times_[next_] <= seconds_since(begin_)) {
      requests_[next_].id = std::to_string(next_);
      load_.requests[next_].sent = seconds_since(begin_);
      if (auto ok = client_.send(requests_[next_]); !ok) return ok;
      ++next_;
    }
    return {};
  }

  // Until the next request is due, at most.
  std::chrono::milliseconds patience() const {
    if (next_ == requests_.size() || running() >= window_) return kLongestReceive;
    const double left = std::max(0.0, 1e3 * (send_times_[next_] - seconds_since(begin_)));
    return std::chrono::milliseconds(
        static_cast<int64_t>(std::min(left, static_cast<double>(kLongestReceive.count()))));
  }

  Result<void> take(const comm::ServerMessage& message) {
    const double now = seconds_since(begin_);
    if (const auto* delta = std::get_if<comm::Delta>(&message)) {
      const auto i = index_of(delta->id, next_);
      if (!i || delta->token_ids.empty()) return {};
      RequestTimes& times = load_.requests[*i];
      if (times.tokens == 0) {
        times.first_token = now;
      } else {
        times.gaps.push_back(static_cast<float>(now - times.last_token));
      }
      times.last_token = now;
      times.tokens += static_cast<int32_t>(delta->token_ids.size());
      tokens_ += static_cast<int64_t>(delta->token_ids.size());
    } else if (const auto* done = std::get_if<comm::Done>(&message)) {
      if (const auto i = index_of(done->id, next_)) {
        RequestTimes& times = load_.requests[*i];
        times.prompt_tokens = done->usage.prompt_tokens;
        // A server may send several tokens in one piece; its own count is right.
        if (times.tokens > 0 && done->usage.completion_tokens > 0) times.tokens = done->usage.completion_tokens;
        end(*i, now);
      }
    } else if (const auto* failure = std::get_if<comm::Failure>(&message)) {
      if (failure->id.empty()) return fail("{}", failure->message);
      if (const auto i = index_of(failure->id, next_)) {
        load_.requests[*i].error = failure->message;
        end(*i, now);
      }
    }
    return {};
  }

  void end(size_t i, double now) {
    if (load_.requests[i].done > 0) return;
    load_.requests[i].done = now;
    ++ended_;
  }

  comm::ServerClient& client_;
  std::vector<comm::GenerateRequest> requests_;
  std::vector<double> send_times_;
  const std::function<void(size_t, int64_t)> on_progress_;
  size_t window_ = 0, next_ = 0, ended_ = 0;
  int64_t tokens_ = 0;
  const Clock::time_point begin_ = Clock::now();
  Load load_;
};

}  // namespace

int64_t Load::prompt_tokens() const {
  int64_t sum = 0;
  for (const RequestTimes& times : requests) sum += times.prompt_tokens;
  return sum;
}

int64_t Load::tokens() const {
  int64_t sum = 0;
  for (const RequestTimes& times : requests) sum += times.tokens;
  return sum;
}

const std::string* Load::first_error() const {
  for (const RequestTimes& times : requests) {
    if (!times.error.empty()) return &times.error;
  }
  return nullptr;
}

Result<Load> run_load(comm::ServerClient& client, std::vector<comm::GenerateRequest> requests,
                      const LoadOptions& options, const std::function<bool()>& give_up) {
  return LoadRun(client, std::move(requests), options).run(give_up);
}

std::vector<comm::GenerateRequest> random_requests(size_t count, int32_t input_len, int32_t output_len,
                                                   int32_t vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int32_t> token(0, vocab_size - 1);
  std::vector<comm::GenerateRequest> requests(count);
  for (comm::GenerateRequest& request : requests) {
    std::vector<int32_t> ids(static_cast<size_t>(input_len));
    for (int32_t& id : ids) id = token(random);
    request.prompt_token_ids = std::move(ids);
    request.max_tokens = output_len;
    request.temperature = 0;
    request.ignore_eos = true;
  }
  return requests;
}

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<int64_t>(std::ceil(p * static_cast<double>(values.size()))) - 1;
  return values[static_cast<size_t>(std::clamp<int64_t>(rank, 0, static_cast<int64_t>(values.size()) - 1))];
}

}  // namespace lorikeet::launcher
