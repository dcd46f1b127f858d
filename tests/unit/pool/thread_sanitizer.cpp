// What the thread sanitizer must not report in this binary. An exception that one thread makes and
// another reads is freed by whoever drops the last std::exception_ptr; the count that orders the
// two is inside libstdc++.so, which is not instrumented, so the sanitizer sees no order. Nothing
// else may be hidden here.
#if defined(__SANITIZE_THREAD__)
#define NECROCODE_THREAD_SANITIZER
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NECROCODE_THREAD_SANITIZER
#endif
#endif

#ifdef NECROCODE_THREAD_SANITIZER
/// Asked for by the sanitizer's runtime when the program starts.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n";
}
#endif
