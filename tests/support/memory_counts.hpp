// Whether what a process holds says anything: sanitizers keep freed memory.
#pragma once

namespace necrocode::test {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NECROCODE_TEST_SANITIZED 1
#endif
#endif
#if defined(NECROCODE_TEST_SANITIZED) || defined(__SANITIZE_ADDRESS__) || \
    defined(__SANITIZE_THREAD__)
inline constexpr bool kMemoryCounts = false;
#else
inline constexpr bool kMemoryCounts = true;
#endif

}  // namespace necrocode::test
