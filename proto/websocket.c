#include "proto/websocket.h"
