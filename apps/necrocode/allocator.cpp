#include "allocator.hpp"

#ifdef NECROCODE_JEMALLOC
#include <jemalloc/jemalloc.h>

// Read by jemalloc before main(). Two arenas: what one thread allocates is mostly freed by another,
// and each further arena keeps what its largest request took.
// NOLINTNEXTLINE: the name and the type are jemalloc's
const char* malloc_conf = "narenas:2,dirty_decay_ms:500,muzzy_decay_ms:0,max_background_threads:1";
#endif

namespace necrocode::app {

void give_back_freed_memory() {
#ifdef NECROCODE_JEMALLOC
  bool wanted = true;
  // Where no thread can be had, pages go back while the program allocates.
  static_cast<void>(::mallctl("background_thread", nullptr, nullptr, &wanted, sizeof wanted));
#endif
}

void keep_no_freed_memory() {
#ifdef NECROCODE_JEMALLOC
  bool wanted = false;
  static_cast<void>(::mallctl("thread.tcache.enabled", nullptr, nullptr, &wanted, sizeof wanted));
#endif
}

}  // namespace necrocode::app
