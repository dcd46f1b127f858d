// Files that the binary carries (made by cmake/embed.cmake from demo/).
#pragma once

#include <string_view>
#include <vector>

namespace necrocode::app {

struct EmbeddedFile {
  std::string_view path;  ///< relative to demo/
  std::string_view content;
  bool executable;
};

const std::vector<EmbeddedFile>& demo_files();

}  // namespace necrocode::app
