// The two usual request bodies: bytes in memory, and an open file.
#pragma once

#include <memory>
#include <string>

#include "necrocode/base/file.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::net {

std::shared_ptr<BodySource> memory_body(std::string bytes);
/// `size` bytes from `offset` of `fd`, which it owns.
std::shared_ptr<BodySource> file_body(FileDescriptor fd, std::uint64_t offset, std::uint64_t size);

}  // namespace necrocode::net
