import init.raising
