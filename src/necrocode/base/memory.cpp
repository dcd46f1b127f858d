#include "necrocode/base/memory.hpp"

#include <malloc.h>

#include "necrocode/base/limits.hpp"

namespace necrocode {

void keep_freed_memory() {
  ::mallopt(M_TRIM_THRESHOLD, static_cast<int>(8 * limits::kMiB));
  // Setting one ends glibc's own adjustment of the other: what is larger is mapped for itself.
  ::mallopt(M_MMAP_THRESHOLD, static_cast<int>(1 * limits::kMiB));
}

void give_back_freed_memory() {
  ::malloc_trim(0);
}

}  // namespace necrocode
