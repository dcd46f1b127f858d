#include "necrocode/base/memory.hpp"

#include <malloc.h>

#include "necrocode/base/limits.hpp"

namespace necrocode {

void keep_freed_memory() {
  ::mallopt(M_TRIM_THRESHOLD, static_cast<int>(8 * limits::kMiB));
  // Setting one ends glibc's own adjustment of the other: what is larger is mapped for itself.
  ::mallopt(M_MMAP_THRESHOLD, static_cast<int>(1 * limits::kMiB));
  // Each thread's own heap would keep what its largest request took: 320 MiB of a registry that is
  // loaded with 400,000 tasks, 93 with two heaps.
  ::mallopt(M_ARENA_MAX, 2);
}

void give_back_freed_memory() {
  ::malloc_trim(0);
}

}  // namespace necrocode
