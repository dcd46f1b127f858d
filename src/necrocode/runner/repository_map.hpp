// What a model is shown of a repository that is larger than a prompt: its tree, the files that have
// to do with the task, and of a large file the parts that do. Bounded in time by what is read.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace necrocode::runner {

/// The words of a text that tell something: of three letters or more, in lower case, without the
/// words of every text; of `parseDate` and `parse_date` also `parse` and `date`.
std::set<std::string> telling_words(std::string_view text);

/// Of `files` (below `root`, in any order) those that share words with the task, the most telling
/// first. A word counts by how few files have it, in a file's name more than in its folders and
/// there more than in its content. Contents are read of 200 files at most, of 256 KiB each and
/// 4 MiB together.
std::vector<std::string> rank_files(const std::filesystem::path& root,
                                    const std::vector<std::string>& files,
                                    const std::set<std::string>& words);

/// The files as a tree, a folder a line, in about `bytes`: of folders with many files only their
/// number, and deep folders folded into those above them, as far as it takes.
std::string tree_of(const std::vector<std::string>& files, std::size_t bytes);

/// At most `bytes` of `content`, in whole lines as they stand: its beginning, and around the lines
/// that have most of the words, with a line before each piece that says where it is from. All of it
/// when it fits, nothing when no line does.
std::string excerpt_of(std::string_view content, const std::set<std::string>& words,
                       std::size_t bytes);

}  // namespace necrocode::runner
