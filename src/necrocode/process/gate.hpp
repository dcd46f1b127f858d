// The far side of a gate: a network of its own for the calling process, with a listener in it.
// Internal to this folder.
#pragma once

#include <cstdint>

#include "necrocode/base/file.hpp"
#include "necrocode/process/supervisor_protocol.hpp"

namespace necrocode::process {

/// Moves the calling process into a new network namespace, where nothing but a loopback is, and
/// listens there on `port` of 127.0.0.1. Returns the step that failed, with errno, or kNone.
protocol::StartStep make_gate(std::uint16_t port, FileDescriptor& listener);

/// A listener on this `port` of 127.0.0.1 in the network of the calling process; 0: any free port.
/// Empty with errno on failure.
FileDescriptor listen_on_loopback(std::uint16_t port);

}  // namespace necrocode::process
