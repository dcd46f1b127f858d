// The folder of one run: run.log, diff.patch, tests.json, junit.xml, transcript.jsonl, result.json,
// and while it lasts its git directory and work tree. What an earlier run left in it, and how that
// is told from files of others.
#pragma once

#include <chrono>
#include <filesystem>
#include <string_view>

namespace necrocode::runner {

/// Of the folder in it that holds git directory and work tree.
inline constexpr std::string_view kScratchPrefix = ".necrocode-work-";

/// Removes the files of `folder` that write_file_atomic() of a killed process left, if they are
/// older than `age`.
void remove_drafts(const std::filesystem::path& folder, std::chrono::seconds age);

/// Removes what a killed run left in its folder: its git directory and work tree, and drafts. Not
/// while a run is at work there.
void remove_leftovers(const std::filesystem::path& run_dir);

/// A folder that an earlier run used, also one that was killed, holds that run's files, which would
/// pass for this one's: takes them away. Folders that no run wrote into stay as they are.
void remove_earlier_results(const std::filesystem::path& run_dir);

}  // namespace necrocode::runner
