// Attributes of files, as they were before the program began: how git reads a file must not depend
// on what the program wrote into a .gitattributes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace necrocode::exec {

/// A .gitattributes file: the folder that it is in, relative, empty for the top; and its content.
struct AttributesFile {
  std::string folder;
  std::string content;
};

/// One info/attributes file which says what `files` (outer ones first) and then `info`, the clone's
/// own, say of conversion (text, eol, crlf, ident, filter, working-tree-encoding) and diffs; any
/// .gitattributes in the work tree then says nothing of it. Rules as in gitattributes(5); macros
/// are written out.
std::string frozen_attributes(const std::vector<AttributesFile>& files, std::string_view info);

}  // namespace necrocode::exec
