// Everything strata offers, in one include.
#pragma once

#include "strata/text.hpp"
