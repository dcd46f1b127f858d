// Pools, slots and leases as the service tells them (SPEC section 3). Nothing is changed here.
#pragma once

#include "necrocode/base/clock.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/pool/pools.hpp"

namespace necrocode::pool {

/// The steady `when` as the wall clock will show it, as far as it can be known now.
SystemTime wall_time(const Clock& clock, SteadyTime when);

Json view(const Pool& pool, const SlotEntry& slot, const Clock& clock);
Json view(const Pool& pool, const Clock& clock);
/// A slot id whose lease has ended.
Json view(const LeaseRecord& ended);

Allocation to_allocation(const std::filesystem::path& pool_folder, const std::string& url,
                         const LeaseRecord& lease, SystemTime expires_at);

}  // namespace necrocode::pool
