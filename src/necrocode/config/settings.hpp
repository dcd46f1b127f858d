// The table of all settings: what each is called, how its value is read and told. Inside of config/
// only.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/config/config.hpp"

namespace necrocode::config {

// Reads the text into the field; what is wrong, or empty.
using Setter = std::function<std::string(Config&, const std::string&)>;
using Getter = std::function<Json(const Config&)>;
// The same for a map or a list: what is wrong where in it, as pointers ("/0/model").
using Reader = std::function<std::vector<FieldError>(Config&, const Json&)>;

struct Setting {
  std::string key;
  std::string variable;
  std::string description;
  Setter set;
  Getter get;
  Reader read{};  // of a map or a list, which only the file can give

  bool is_number() const { return get(Config{}).is_number(); }
};

/// In the order in which they are shown.
const std::vector<Setting>& settings();
/// nullptr when there is none of that key.
const Setting* find_setting(std::string_view key);
/// What is wrong with a value of the file for a setting that is one value; else it is set.
std::string set_value(Config& config, const Setting& setting, const Json& value);
/// ", not "VALUE"", for the end of a complaint.
std::string not_this(std::string_view value);

}  // namespace necrocode::config
