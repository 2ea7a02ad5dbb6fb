#include "actors/head/request_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace lorikeet::actors {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

EndedRequest example() {
  EndedRequest request;
  request.id = "abc/0";
  request.adapter = "moby";
  request.reason = "length";
  request.prompt_tokens = 12;
  request.cached_tokens = 8;
  request.tokens = 34;
  request.to_first_token = milliseconds(15);
  request.total = milliseconds(1250);
  return request;
}

TEST(RequestLog, SaysInALineWhatBecameOfAChangeOfAdapters) {
  const AdapterEvent loaded{"load", "moby", "/adapters/moby", "", "Success", milliseconds(120)};
  EXPECT_EQ(adapter_line(loaded, false), "adapter moby: load from /adapters/moby, 0.120 s, done");
  const AdapterEvent refused{"unload", "a\nb", "", "unknown_adapter", "it is not there", milliseconds(1)};
  EXPECT_EQ(adapter_line(refused, false), "adapter a?b: unload, 0.001 s, unknown_adapter: it is not there");
  const json line = json::parse("{" + adapter_line(refused, true) + "}");
  EXPECT_EQ(line["event"], "adapter");
  EXPECT_EQ(line["action"], "unload");
  EXPECT_EQ(line["code"], "unknown_adapter");
}

TEST(RequestLog, SaysInALineHowARequestHasEnded) {
  EXPECT_EQ(request_line(example(), false),
            "request abc/0: length, adapter moby, 12 prompt tokens (8 cached), 34 generated, first after 0.015 s, "
            "1.250 s");
  EndedRequest failed;
  failed.id = "1\n2";
  failed.reason = "error";
  failed.error = "rank 1 is gone";
  EXPECT_EQ(request_line(failed, false), "request 1?2: error, 0 prompt tokens, 0 generated, 0.000 s: rank 1 is gone");
  EndedRequest left = example();
  left.reason = "abort";
  left.client_gone = true;
  EXPECT_THAT(request_line(left, false), HasSubstr("request abc/0: client gone (499), "));
}

TEST(RequestLog, SaysTheSameAsJson) {
  EndedRequest left = example();
  left.client_gone = true;
  left.id = "a\"b\xFF";
  const json line = json::parse("{" + request_line(left, true) + "}");
  EXPECT_EQ(line["event"], "request");
  EXPECT_EQ(line["status"], 499);
  EXPECT_EQ(line["reason"], "client_gone");
  EXPECT_EQ(line["tokens"], 34);
  EXPECT_EQ(line["total_s"], 1.25);
  EXPECT_THAT(line["id"].get<std::string>(), HasSubstr("a\"b"));
}

TEST(RequestLog, SaysTheStatusThatAClientGot) {
  EXPECT_EQ(json::parse("{" + request_line(example(), true) + "}")["status"], 200);
  for (const auto& [code, status] : {std::pair("adapter_failed", 422), std::pair("rank_lost", 503)}) {
    EndedRequest failed = example();
    add_failure({"1", code, "a sentence"}, failed);
    const json line = json::parse("{" + request_line(failed, true) + "}");
    EXPECT_EQ(line["status"], status) << code;
    EXPECT_EQ(line["error"], "a sentence");
  }
}

TEST(RequestLog, SaysWhatTheServerDidBetweenTwoLooks) {
  ServingStatus before, after;
  EXPECT_EQ(throughput_line(before, after, seconds(10)), "");
  after.queues.held = 1;
  after.engine.stats.running = 2;
  after.engine.stats.waiting = 3;
  after.engine.stats.prompt_tokens = 100;
  after.engine.stats.prefix_hit_tokens = 25;
  after.engine.stats.generated_tokens = 55;
  after.engine.stats.blocks_total = 10;
  after.engine.stats.blocks_free = 5;
  EXPECT_EQ(
      throughput_line(before, after, seconds(10)),
      "Avg prompt throughput: 10.0 tokens/s, Avg generation throughput: 5.5 tokens/s, Running: 2 reqs, Waiting: 4 "
      "reqs, KV cache usage: 50.0%, Prefix cache hit rate: 25.0%");
  // An engine that was made anew counts from nothing.
  EXPECT_THAT(throughput_line(after, before, seconds(10)), HasSubstr("generation throughput: 0.0 tokens/s"));
}

// The standard error, sent elsewhere while it lives.
class ErrorInto {
 public:
  explicit ErrorInto(int descriptor) { dup2(descriptor, STDERR_FILENO); }
  ~ErrorInto() {
    dup2(kept_, STDERR_FILENO);
    close(kept_);
  }

 private:
  const int kept_ = dup(STDERR_FILENO);
};

LogOptions info() {
  LogOptions options;
  options.level = "info";
  return options;
}

TEST(RequestLog, HasWrittenEveryLineWhenItIsClosed) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    const ErrorInto error(fileno(file));
    RequestLog log(info());
    for (int i = 0; i < 2000; ++i) log.ended(example());
    log.close(std::chrono::seconds(30));
    log.ended(example());
    log.throughput("too late");
  }
  std::rewind(file);
  int lines = 0;
  for (int c = 0; (c = std::fgetc(file)) != EOF;) lines += c == '\n' ? 1 : 0;
  std::fclose(file);
  EXPECT_EQ(lines, 2000);
}

TEST(RequestLog, EndsThoughNobodyReadsIt) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const ErrorInto error(ends[1]);
  RequestLog log(info());
  for (int i = 0; i < 2000; ++i) log.ended(example());  // more than a pipe holds
  log.close(std::chrono::milliseconds(10));
  int lines = 0;  // its thread goes on when somebody reads
  for (char c = 0; lines < 2000 && read(ends[0], &c, 1) == 1;) lines += c == '\n' ? 1 : 0;
  EXPECT_EQ(lines, 2000);
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
}  // namespace lorikeet::actors
