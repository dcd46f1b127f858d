#include "spend_options.hpp"

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/config/yaml.hpp"
#include "runtime.hpp"

namespace necrocode::app {

std::optional<double> positive_usd(const std::string& flag, const std::string& text) {
  if (text.empty()) return std::nullopt;
  const auto usd = parse_double(text);
  if (usd && *usd > 0) return usd;
  throw ConfigError(flag + " must be a number of US dollars above 0, such as 2 or 0.50, not \"" +
                    printable(text) + "\"");
}

std::shared_ptr<const llm::PriceTable> read_prices(const std::string& flag,
                                                   const std::filesystem::path& file) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(file, ignored)) {
    throw ConfigError(flag + " must be a file: " + file.string());
  }
  try {
    const Json table = config::parse_yaml(read_file(file, limits::kMiB), file.string());
    return std::make_shared<const llm::PriceTable>(table["prices"].is_object() ? table["prices"]
                                                                               : table);
  } catch (const StorageError& error) {
    throw ConfigError(flag + ": " + error.what());
  } catch (const ConfigError& error) {
    ErrorInfo info = error.info();
    throw ConfigError(flag + " " + file.string() + ": " + error.summary(), std::move(info));
  }
}

std::filesystem::path shared_spending(const config::Config& config) {
  require_folder("--data", config.data_dir);
  return std::filesystem::path(config.data_dir) / "spending.db";
}

}  // namespace necrocode::app
