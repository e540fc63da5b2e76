#include "agent/channel/packet.h"
