// The client library in one header: the four service clients, their models and errors.
#pragma once

#include "necrocode/artifacts/client.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/llm/client.hpp"
#include "necrocode/pool/client.hpp"
#include "necrocode/pool/slot_lease.hpp"
#include "necrocode/registry/client.hpp"
