// How this process's allocator treats memory that is freed. For programs' main() functions; a
// library leaves the allocator alone.
#pragma once

namespace necrocode {

/// glibc gives the top of a heap back to the kernel from 128 KiB on. The HTTP client's buffers live
/// as long as a call, so that each call gave them back and took them again: a quarter of its CPU.
/// After this, 8 MiB stay. Before other threads begin.
void keep_freed_memory();

/// After something large has been freed: gives whole free pages of all heaps back to the kernel,
/// which takes milliseconds. What a handler's thread frees lies between others' and would stay.
void give_back_freed_memory();

}  // namespace necrocode
