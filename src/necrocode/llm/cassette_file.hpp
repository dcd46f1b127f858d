// CassetteFile: a cassette on disk that grows.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

#include "necrocode/llm/cassette.hpp"

namespace necrocode::llm {

/// Whoever reads the file finds a whole cassette at every moment: it is replaced, not appended to.
/// Keeps its text in memory, at most limits::kCassetteBytes. Not thread-safe.
class CassetteFile {
 public:
  /// Continues the cassette that is there, or begins one. Throws ConfigError when what is there is
  /// none, StorageError when it cannot be read or written.
  explicit CassetteFile(std::filesystem::path path);
  /// False when there is no room, or the entry could not be read back: then nothing has changed.
  /// Throws StorageError when it cannot be written.
  bool append(const CassetteEntry& entry);

 private:
  void write(const std::string& entries) const;
  std::filesystem::path path_;
  std::string entries_;  // as they stand in the file, indented
  std::string tail_;     // what follows them
  std::size_t count_ = 0;
};

}  // namespace necrocode::llm
