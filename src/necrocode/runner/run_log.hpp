// RunLog: the log of one run, in a file that is masked and bounded as it is written, so that a
// killed runner leaves a log that can be shown to anyone.
#pragma once

#include <filesystem>
#include <mutex>
#include <string_view>

#include "necrocode/base/file.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::runner {

/// Thread-safe. Above limits::kRunLogBytes it says so once and drops the rest. A write that fails
/// (a full disk) ends the log, never the run: it is told once on stderr, and the rest is dropped.
class RunLog {
 public:
  /// Empties the file. Throws ResourceConflictError while another RunLog, of any process, has it
  /// open, before the file is touched; StorageError when it cannot be made.
  RunLog(const std::filesystem::path& file, const Masker& masker);
  /// One line, with the time in front.
  void line(std::string_view text);
  /// A command's output, as it comes.
  void output(std::string_view piece);
  /// Lets go what the masker held back; later text starts anew.
  void flush();
  const std::filesystem::path& path() const { return path_; }
  /// True when a write has failed, so that the log is not whole.
  bool failed() const;

 private:
  void write(std::string_view masked);
  mutable std::mutex mutex_;
  std::filesystem::path path_;
  FileDescriptor file_;
  MaskingStream stream_;
  std::size_t written_ = 0;
  bool failed_ = false;
};

/// True while a RunLog, of any process, has the file open. False also when there is no such file.
bool is_being_written(const std::filesystem::path& run_log);

}  // namespace necrocode::runner
