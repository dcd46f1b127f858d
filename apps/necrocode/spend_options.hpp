// What commands have in common that let a program spend money: caps, prices, and where the host's
// runs see what is spent.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "necrocode/config/config.hpp"
#include "necrocode/llm/prices.hpp"

namespace necrocode::app {

/// US dollars as an option gives them; nothing for an empty text. Throws ConfigError naming `flag`
/// for what is no finite number above 0.
std::optional<double> positive_usd(const std::string& flag, const std::string& text);
/// The table of a YAML or JSON file shaped as `prices:` of the configuration, which may stand under
/// that name in it. Throws ConfigError naming `flag`.
std::shared_ptr<const llm::PriceTable> read_prices(const std::string& flag,
                                                   const std::filesystem::path& file);
/// MeteringProxyOptions::shared_state of this host. Makes its folder.
std::filesystem::path shared_spending(const config::Config& config);

}  // namespace necrocode::app
