#include "agent/gate/limits.h"
