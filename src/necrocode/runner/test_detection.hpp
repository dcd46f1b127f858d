// Which commands a repository's own files suggest as its tests.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace necrocode::runner {

/// The commands of the first convention that fits, or none. The conventions, in their order, are
/// one table in test_detection.cpp; docs/playbooks.md lists them. Only files at the top of the
/// repository, and of its test folders, are looked at: a repository of several languages has its
/// tests behind one of these, or names them itself.
std::vector<std::string> detect_test_commands(const std::filesystem::path& root);

}  // namespace necrocode::runner
