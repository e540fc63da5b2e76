#include "agent/directory/directory.h"
