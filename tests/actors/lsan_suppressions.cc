// A thread that BlockingPool leaves behind may still be ending when the process does. What OpenSSL keeps for that thread
// is then reported as leaked, now and then.
extern "C" const char* __lsan_default_suppressions();  // the leak sanitizer asks for them by this name

const char* __lsan_default_suppressions() {
  return "leak:CRYPTO_zalloc\n";
}
