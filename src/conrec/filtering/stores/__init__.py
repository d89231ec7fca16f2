"""Where predict sets are kept between the night that writes them and the requests that read them."""
