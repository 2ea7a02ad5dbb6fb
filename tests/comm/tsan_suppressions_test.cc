// The thread sanitizer is told to overlook libraries, not us: races that are planted here must be reported.
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <zmq.hpp>

namespace lorikeet::comm {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kHasSanitizer = true;
#else
constexpr bool kHasSanitizer = false;
#endif

constexpr int kReported = 66;  // the sanitizer's exit status

int counter = 0;
std::atomic<int> done{0};  // relaxed: tells the time, orders nothing

void count(void* = nullptr, void* = nullptr) {
  ++counter;
  done.fetch_add(1, std::memory_order_relaxed);
}

void wait_for(int times) {
  while (done.load(std::memory_order_relaxed) < times) std::this_thread::yield();
}

// Between two threads of ours.
void race_of_threads() {
  std::thread other([] { count(); });
  count();
  wait_for(2);
  other.join();
  _exit(0);
}

// Between a thread of ours and our callback in ZeroMQ's thread, which frees a message that has been sent.
void race_with_a_callback() {
  zmq::context_t context(1);
  zmq::socket_t in(context, zmq::socket_type::pull), out(context, zmq::socket_type::push);
  in.bind("tcp://127.0.0.1:*");
  out.connect(in.get(zmq::sockopt::last_endpoint));
  std::string body(100'000, 'x');
  out.send(zmq::message_t(body.data(), body.size(), [](void*, void*) { count(); }), zmq::send_flags::none);
  zmq::message_t message;
  (void)in.recv(message);
  wait_for(1);
  count();
  _exit(0);
}

TEST(TsanSuppressionsDeathTest, HideNoRaceOfOurThreads) {
  if (!kHasSanitizer) GTEST_SKIP() << "built without the thread sanitizer";
  EXPECT_EXIT(race_of_threads(), testing::ExitedWithCode(kReported), "data race");
}

TEST(TsanSuppressionsDeathTest, HideNoRaceInACallbackFromZeroMqsThread) {
  if (!kHasSanitizer) GTEST_SKIP() << "built without the thread sanitizer";
  EXPECT_EXIT(race_with_a_callback(), testing::ExitedWithCode(kReported), "data race");
}

}  // namespace
}  // namespace lorikeet::comm
