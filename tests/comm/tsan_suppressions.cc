// What the thread sanitizer is not told of libraries that Debian builds without it. Linked into tests with their
// threads.
#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_suppressions();

extern "C" const char* __tsan_default_suppressions() {
  // ZeroMQ passes messages between its threads and ours through lock-free pipes of its own, whose order of memory the
  // sanitizer does not see. So what the library itself does through intercepted functions (memcpy, send, free) would be
  // reported against us. Our own accesses are still watched, those in its callbacks included. With CURVE it is libsodium
  // that writes what ZeroMQ's threads hand over.
  //
  // Gloo's thread tells a buffer that it is complete, and lets go of it by a shared pointer's count, which is an atomic
  // in the library that the sanitizer does not see; only then does the owner destroy the buffer. These functions touch
  // the buffer's own members alone.
  return "called_from_lib:libzmq.so\n"
         "called_from_lib:libsodium.so\n"
         "race:gloo::transport::tcp::UnboundBuffer::handleSendCompletion\n"
         "race:gloo::transport::tcp::UnboundBuffer::handleRecvCompletion\n";
}
#endif
