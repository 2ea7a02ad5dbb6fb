// In sanitized builds alone. libedit does not free the names of functions that are added to an editor (EL_ADDFN), however
// that ends.
extern "C" const char* __lsan_default_suppressions();  // the leak sanitizer asks for them by this name

const char* __lsan_default_suppressions() {
  return "leak:wcsdup\n";
}
