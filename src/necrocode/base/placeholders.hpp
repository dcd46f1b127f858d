// Texts with places to fill: "{name}". For templates that a configuration gives; nothing is
// evaluated.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace necrocode {

/// Why `text` is no template of these names, naming the place: another name, or a brace that is not
/// part of one. Nothing when it is right.
std::optional<std::string> placeholder_defect(std::string_view text,
                                              const std::vector<std::string>& names);

/// `text` with each "{name}" replaced; what a value holds is not looked at again. `text` must be
/// right (CheckFailed).
std::string fill_placeholders(std::string_view text,
                              const std::vector<std::pair<std::string, std::string>>& values);

/// What commit titles and trailers may name.
inline const std::vector<std::string> kCommitPlaceholders = {"task_id", "spec", "number", "title"};

}  // namespace necrocode
