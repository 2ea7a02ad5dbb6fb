#include "launcher/json_stderr.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "kernels/base/last_words.h"
#include "kernels/base/line_writer.h"

namespace lorikeet::launcher {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostLineBytes = 64 << 10;  // longer ones are cut
constexpr int kSilenceMs = 100;              // at the end, of somebody who was left behind with the pipe
constexpr std::chrono::seconds kEndPatience{1};

std::atomic<int> pipe_at_abort{-1};  // of the one that there is

// A broken invariant is said, then the process aborts: not before what it said has left the pipe. Async-signal-safe.
void abort_behind_last_words(int number) {
  let_last_words_out(pipe_at_abort);
  std::signal(number, SIG_DFL);
  std::raise(number);
}

bool is_event(std::string_view line) {
  if (line.empty() || line.front() != '{') return false;
  const Json object = Json::parse(line, nullptr, false);
  return object.is_object() && object.contains("event");
}

// As the lines of the log have it (actors/head/request_log.h): 2026-11-30T13:25:08.123+00:00.
std::string time_text(std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm local{};
  localtime_r(&seconds, &local);
  const long minutes = local.tm_gmtoff / 60, away = minutes < 0 ? -minutes : minutes;
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}{}{:02}:{:02}", local, ms, minutes < 0 ? '-' : '+', away / 60,
                     away % 60);
}

// glog's lines begin with their level and the date, "W20261130 " or "W1130 "; ours with who has failed, or with the word.
const char* level_of(std::string_view line) {
  const auto begins = [line](std::string_view with) { return line.substr(0, with.size()) == with; };
  const size_t space = std::min(line.find(' '), line.size());
  const bool of_glog = (space == 5 || space == 9) && line.find_first_not_of("0123456789", 1) == space;
  if ((of_glog && line[0] == 'F') || begins("*** Check failure stack trace") || begins("terminate called ")) {
    return "critical";
  }
  if ((of_glog && line[0] == 'E') || begins("lorikeet ") || begins("lorikeet: ")) return "error";
  if ((of_glog && line[0] == 'W') || begins("warning: ")) return "warning";
  return "info";
}

// How much of the text is whole characters, where its end may have cut one of UTF-8 in two.
size_t whole_characters(std::string_view text) {
  size_t rest = 0;  // bytes that go on with a character
  while (rest < 3 && rest < text.size() && (text[text.size() - 1 - rest] & 0xC0) == 0x80) ++rest;
  if (rest == text.size()) return text.size();
  const auto first = static_cast<unsigned char>(text[text.size() - 1 - rest]);
  const size_t bytes = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
  return bytes > rest + 1 ? text.size() - 1 - rest : text.size();
}

// Gives `write` the lines of a stream that comes in pieces.
class Lines {
 public:
  template <class Write>
  void add(std::string_view piece, const Write& write) {
    while (!piece.empty()) {
      const size_t end = piece.find('\n');
      const size_t room = kMostLineBytes - held_.size();
      const size_t take = std::min({end, piece.size(), room});
      held_ += piece.substr(0, take);
      piece.remove_prefix(take);
      if (!piece.empty() && piece.front() == '\n') {
        piece.remove_prefix(1);
        end_line(write);
      } else if (held_.size() == kMostLineBytes) {
        std::string rest = held_.substr(whole_characters(held_));
        held_.resize(held_.size() - rest.size());
        end_line(write);
        held_ = std::move(rest);
      }
    }
  }

  template <class Write>
  void end_line(const Write& write) {
    if (!held_.empty()) write(std::exchange(held_, {}));
  }

 private:
  std::string held_;
};

}  // namespace

std::string json_line(std::string_view line, std::chrono::system_clock::time_point now) {
  if (is_event(line)) return std::string(line);
  const Json object = {{"time", time_text(now)}, {"level", level_of(line)}, {"event", "message"}, {"line", line}};
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::unique_ptr<JsonStderr>> JsonStderr::begin() {
  const auto failed = [] { return fail("the log's pipe cannot be made: {}", std::strerror(errno)); };
  Descriptor before(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  Descriptor end(eventfd(0, EFD_CLOEXEC));
  std::array<int, 2> ends{};
  if (!before || !end || pipe2(ends.data(), O_CLOEXEC) != 0) return failed();
  Descriptor read_end(ends[0]);
  const Descriptor write_end(ends[1]);
  if (dup2(write_end.get(), STDERR_FILENO) < 0) return failed();
  return std::unique_ptr<JsonStderr>(new JsonStderr(std::move(before), std::move(read_end), std::move(end)));
}

JsonStderr::JsonStderr(Descriptor before, Descriptor pipe, Descriptor end)
    : before_(std::move(before)), pipe_(std::move(pipe)), end_(std::move(end)), thread_([this] { run(); }) {
  pipe_at_abort = pipe_.get();
  std::signal(SIGABRT, abort_behind_last_words);
}

JsonStderr::~JsonStderr() {
  std::signal(SIGABRT, SIG_DFL);
  dup2(before_.get(), STDERR_FILENO);
  eventfd_write(end_.get(), 1);
  thread_.join();
}

// To the pipe's end, when nobody holds it any more; or for a process that was left behind with it, until it is silent.
void JsonStderr::run() const {
  LineWriter writer(before_.get());
  const auto write = [&writer](const std::string& line) {
    writer.write(json_line(line, std::chrono::system_clock::now()));
  };
  Lines lines;
  std::array<char, 16384> bytes{};
  std::optional<std::chrono::steady_clock::time_point> last_call;  // once it is to end
  for (;;) {
    std::array<pollfd, 2> states{pollfd{pipe_.get(), POLLIN, 0}, pollfd{last_call ? -1 : end_.get(), POLLIN, 0}};
    const int ready = poll(states.data(), states.size(), last_call ? kSilenceMs : -1);
    const auto now = std::chrono::steady_clock::now();
    if (last_call && (ready == 0 || now >= *last_call)) break;
    if (ready <= 0) continue;
    if (states[1].revents != 0) last_call = now + kEndPatience;
    if (states[0].revents == 0) continue;
    const ssize_t got = read(pipe_.get(), bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    lines.add({bytes.data(), static_cast<size_t>(got)}, write);
  }
  lines.end_line(write);
}

}  // namespace lorikeet::launcher
