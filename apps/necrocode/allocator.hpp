// The process's allocator: jemalloc, and how it treats memory that is freed (ADR 0008). For
// programs' main() functions; a library leaves the allocator alone.
#pragma once

namespace necrocode::app {

/// Freed pages go back to the kernel half a second later, from a thread of their own; without this
/// only while the program allocates. Before other threads begin, and not in a process that starts
/// children by fork(). Does nothing under sanitizers, which bring their own allocator.
void give_back_freed_memory();

/// This thread keeps no freed memory for itself: for threads that are many and mostly wait.
void keep_no_freed_memory();

}  // namespace necrocode::app
